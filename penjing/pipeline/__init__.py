"""Recipe in, run folder out: the main job in steps that survive being cut off; looks at networks."""

from penjing.pipeline._certify import certify_runs as certify_runs
from penjing.pipeline._compare import compare as compare
from penjing.pipeline._demo import demo_recipe as demo_recipe
from penjing.pipeline._events import Event as Event
from penjing.pipeline._events import Listener as Listener
from penjing.pipeline._events import silent as silent
from penjing.pipeline._export import export as export
from penjing.pipeline._helping import help_tune as help_tune
from penjing.pipeline._inspect import inspect as inspect
from penjing.pipeline._predict import predict as predict
from penjing.pipeline._report import read_report as read_report
from penjing.pipeline._report import write_report as write_report
from penjing.pipeline._run import resume_command as resume_command
from penjing.pipeline._run import stored_recipe as stored_recipe
from penjing.pipeline._shape import dry_run as dry_run
from penjing.pipeline._shape import shape as shape
from penjing.pipeline._steps import steps_of as steps_of
from penjing.pipeline._together import launched as launched
from penjing.pipeline._together import leads as leads
