"""What a batch, a loss and a metric are, and where labelled pictures come from."""

from penjing.tasks._augment import POLICIES as POLICIES
from penjing.tasks._classification import ImageClassification as ImageClassification
from penjing.tasks._classification import Task as Task
from penjing.tasks._classification import image_classification as image_classification
from penjing.tasks._data import image_data as image_data
from penjing.tasks._images import ImageData as ImageData
from penjing.tasks._metrics import accuracy as accuracy
from penjing.tasks._metrics import macro_recall as macro_recall
from penjing.tasks._metrics import negative_log_likelihood as negative_log_likelihood
from penjing.tasks._metrics import per_class_recall as per_class_recall
from penjing.tasks._splits import Split as Split
