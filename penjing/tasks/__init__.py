"""What a batch, a loss and a metric are, and where labelled pictures, texts and sounds come from."""

from penjing.tasks._augment import POLICIES as POLICIES
from penjing.tasks._builtin import Set as Set
from penjing.tasks._builtin import builtin_sets as builtin_sets
from penjing.tasks._classification import Classification as Classification
from penjing.tasks._classification import audio_classification as audio_classification
from penjing.tasks._classification import image_classification as image_classification
from penjing.tasks._classification import text_classification as text_classification
from penjing.tasks._columns import Columns as Columns
from penjing.tasks._data import image_data as image_data
from penjing.tasks._fields import example_of as example_of
from penjing.tasks._fields import load_data as load_data
from penjing.tasks._fields import reads_for as reads_for
from penjing.tasks._fields import task_for as task_for
from penjing.tasks._images import ImageData as ImageData
from penjing.tasks._metrics import accuracy as accuracy
from penjing.tasks._metrics import macro_recall as macro_recall
from penjing.tasks._metrics import negative_log_likelihood as negative_log_likelihood
from penjing.tasks._metrics import per_class_recall as per_class_recall
from penjing.tasks._prepare import Options as Options
from penjing.tasks._protocols import LabelledData as LabelledData
from penjing.tasks._protocols import Metrics as Metrics
from penjing.tasks._protocols import SequenceTask as SequenceTask
from penjing.tasks._protocols import Task as Task
from penjing.tasks._protocols import headline as headline
from penjing.tasks._splits import Split as Split
from penjing.tasks._tokenizer import save_tokenizer as save_tokenizer
