"""Options that several commands take."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Seed = Annotated[int | None, typer.Option(help="What every random choice is drawn from (default 0).", min=0)]
Margin = Annotated[
    float | None, typer.Option(help="Points of the metric that may be lost, for example 1.0.", min=0)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and how long; write nothing.")]
Runtime = Annotated[
    str | None, typer.Option(help="What latency is measured in: eager, compile, onnx or openvino.")
]
Also = Annotated[
    list[str] | None,
    typer.Option(help="Time the result there, too: cuda, openvino, batch=64, or onnx,batch=8,threads=2."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")]
Out = Annotated[str | None, typer.Option(help="The run folder (default: a new one under runs/).")]
ImageSize = Annotated[
    int | None, typer.Option(help="Height and width of pictures (default: the network's).", min=8)
]
Code = Annotated[
    str | None,
    typer.Option("--model", help="The code that a saved network was made from: file:PATH.py:FACTORY."),
]
PathColumn = Annotated[str | None, typer.Option(help="The column of files, where --data is a table.")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of labels, where --data is a table.")]
Task = Annotated[str | None, typer.Option(help="What the network does, where nothing else tells.")]
TextColumn = Annotated[
    str | None, typer.Option(help="The column of texts or words, where --data is a table.")
]
PairColumn = Annotated[str | None, typer.Option(help="The column of second texts, where --data is a table.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens that longer texts are cut to.", min=4)]
Tokenizer = Annotated[str | None, typer.Option(help="A folder or hub name, where the model brings none.")]
MaxSeconds = Annotated[float | None, typer.Option(help="Clips that last longer are refused.", min=0.05)]
Alphabet = Annotated[
    str | None,
    typer.Option(help="The characters of transcripts, or a vocab.json (default: as the data has)."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out unreadable examples and count them.")]
