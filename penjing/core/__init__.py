"""Nouns and errors shared by every room. Imports no torch."""

from penjing.core._budget import Budget as Budget
from penjing.core._budget import Limit as Limit
from penjing.core._budget import Margin as Margin
from penjing.core._errors import ArtifactError as ArtifactError
from penjing.core._errors import BudgetError as BudgetError
from penjing.core._errors import DataError as DataError
from penjing.core._errors import InternalError as InternalError
from penjing.core._errors import PenjingError as PenjingError
from penjing.core._errors import PlanError as PlanError
from penjing.core._errors import RunError as RunError
from penjing.core._errors import SourceError as SourceError
from penjing.core._errors import TraceError as TraceError
from penjing.core._errors import TrainingError as TrainingError
from penjing.core._errors import UsageError as UsageError
from penjing.core._errors import VerificationError as VerificationError
from penjing.core._measurement import Measurement as Measurement
from penjing.core._measurement import compare as compare
from penjing.core._recipe import Recipe as Recipe
from penjing.core._recipe import read_yaml as read_yaml
from penjing.core._recipe import refuse_code as refuse_code
from penjing.core._recipe import runs_code as runs_code
