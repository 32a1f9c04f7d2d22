"""Training that wins accuracy: transfer, distillation, recovery, and their parts for a loop of one's own."""

import sys
from types import ModuleType

from penjing.recover._attention import relation_distance as relation_distance
from penjing.recover._bn import reestimate_bn as reestimate_bn
from penjing.recover._bn import settle_bn as settle_bn
from penjing.recover._brief import recover_briefly as recover_briefly
from penjing.recover._cache import TeacherCache as TeacherCache
from penjing.recover._defaults import DISTIL as DISTIL
from penjing.recover._defaults import RECOVER as RECOVER
from penjing.recover._defaults import TRANSFER as TRANSFER
from penjing.recover._defaults import DistilDefaults as DistilDefaults
from penjing.recover._defaults import RecoverDefaults as RecoverDefaults
from penjing.recover._defaults import TransferDefaults as TransferDefaults
from penjing.recover._distil import distil as distil
from penjing.recover._distil import recover as recover
from penjing.recover._distil import recovery_terms as recovery_terms
from penjing.recover._distillation import distillation_loss as distillation_loss
from penjing.recover._engine import Checkpoint as Checkpoint
from penjing.recover._engine import Fit as Fit
from penjing.recover._epoch import train_epoch as train_epoch
from penjing.recover._evaluate import evaluate as evaluate
from penjing.recover._fit_adjusted import Fitted as Fitted
from penjing.recover._fit_adjusted import fit_adjusted as fit_adjusted
from penjing.recover._fit_adjusted import fit_one as fit_one
from penjing.recover._fit_adjusted import given_by as given_by
from penjing.recover._layers import Layers as Layers
from penjing.recover._layers import find_layers as find_layers
from penjing.recover._layers import layer_pairs as layer_pairs
from penjing.recover._loss_answers import dist as dist
from penjing.recover._loss_answers import dkd as dkd
from penjing.recover._loss_answers import kd_kl as kd_kl
from penjing.recover._loss_answers import standardized_kl as standardized_kl
from penjing.recover._loss_answers import teacher_guided as teacher_guided
from penjing.recover._loss_streams import hidden_distance as hidden_distance
from penjing.recover._loss_streams import hint_distance as hint_distance
from penjing.recover._loss_streams import map_distance as map_distance
from penjing.recover._loss_streams import relational as relational
from penjing.recover._losses import DistillationLoss as DistillationLoss
from penjing.recover._losses import Related as Related
from penjing.recover._losses import Signals as Signals
from penjing.recover._losses import Stream as Stream
from penjing.recover._losses import find_loss as find_loss
from penjing.recover._losses import loss_names as loss_names
from penjing.recover._losses import needs_of as needs_of
from penjing.recover._losses import register_loss as register_loss
from penjing.recover._matching import Matching as Matching
from penjing.recover._matching import match as match
from penjing.recover._mixup import mixing as mixing
from penjing.recover._modules import call as call
from penjing.recover._modules import place as place
from penjing.recover._optim import Group as Group
from penjing.recover._optim import build_optimizer as build_optimizer
from penjing.recover._optim import param_groups as param_groups
from penjing.recover._probe import linear_probe as linear_probe
from penjing.recover._protocols import Data as Data
from penjing.recover._protocols import Progress as Progress
from penjing.recover._rebuild import Rebuilt as Rebuilt
from penjing.recover._rebuild import rebuild as rebuild
from penjing.recover._reconstruct import reconstruct as reconstruct
from penjing.recover._refitted import Reconstruction as Reconstruction
from penjing.recover._refitted import Refitted as Refitted
from penjing.recover._schedules import anneal as anneal
from penjing.recover._schedules import constant as constant
from penjing.recover._schedules import warmup_cosine as warmup_cosine
from penjing.recover._schedules import warmup_linear as warmup_linear
from penjing.recover._sparse import Sparsity as Sparsity
from penjing.recover._sparse import cubic as cubic
from penjing.recover._sparse import held as held
from penjing.recover._sparse import sparse_masks as sparse_masks
from penjing.recover._sparse import sparsify as sparsify
from penjing.recover._sparse import zero_masks as zero_masks
from penjing.recover._sparse import zero_out as zero_out
from penjing.recover._state import TrainState as TrainState
from penjing.recover._together import alone as alone
from penjing.recover._together import from_first as from_first
from penjing.recover._together import processes as processes
from penjing.recover._together import rank as rank
from penjing.recover._together import wait_for_all as wait_for_all
from penjing.recover._training import Training as Training
from penjing.recover._transfer import transfer as transfer


class _Room(ModuleType):
    """`penjing.recover` is this room, and calling it calls `recover`."""

    __call__ = staticmethod(recover)


sys.modules[__name__].__class__ = _Room
