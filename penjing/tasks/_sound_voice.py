"""Speaks words with the eSpeak NG library, in a process of its own: `python _sound_voice.py LIBRARY DATA OUT < JOB`.

A job is a JSON list of [text, voice, words per minute, pitch from 0 to 99]. OUT gets, for each, the number of samples
(8 bytes, little endian) and the samples (16 bits); each number done is printed. Needs the standard library alone, since
a crash of the library may only take this process along.
"""

import array
import ctypes
import json
import sys

SYNCHRONOUS = 2
RATE, PITCH = 1, 3
BY_CHARACTER, UTF8 = 1, 1
RETURN_ON_ERROR = 0x8000
SAYING = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main(library: str, data: str, out: str) -> None:
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), RETURN_ON_ERROR)
    if rate <= 0:
        sys.exit(f"the library does not start with the data in {data}")
    heard = array.array("h")

    def listen(samples, count: int, events) -> int:
        if samples and count > 0:
            heard.frombytes(ctypes.string_at(samples, 2 * count))
        return 0

    callback = SAYING(listen)
    espeak.espeak_SetSynthCallback(callback)
    chance = ctypes.CDLL(None)
    print(rate, flush=True)
    with open(out, "wb") as file:
        for n, (text, voice, speed, pitch) in enumerate(json.load(sys.stdin), start=1):
            del heard[:]
            chance.srand(n)  # noise in some voices comes from the C library's rand()
            say(espeak, text, voice, speed, pitch)
            file.write(len(heard).to_bytes(8, "little") + heard.tobytes())
            if n % 100 == 0:
                print(n, flush=True)


def say(espeak: ctypes.CDLL, text: str, voice: str, speed: int, pitch: int) -> None:
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        sys.exit(f"there is no voice {voice}")
    espeak.espeak_SetParameter(RATE, speed, 0)
    espeak.espeak_SetParameter(PITCH, pitch, 0)
    content = text.encode() + b"\0"
    if espeak.espeak_Synth(content, len(content), 0, BY_CHARACTER, 0, UTF8, None, None) != 0:
        sys.exit(f"{text!r} cannot be said")
    espeak.espeak_Synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
