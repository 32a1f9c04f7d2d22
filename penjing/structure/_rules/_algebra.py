"""Linear algebra: what needs a whole matrix keeps it; batches of matrices, and columns solved for, go on."""

import torch

from penjing.core._graph import Ref
from penjing.structure._labels._atoms import FIXED
from penjing.structure._rules._cuts import joined
from penjing.structure._rules._elementwise import freeze_everything, pointwise
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten

WHOLE = (
    "needs the whole matrix (an inverse, a determinant, a decomposition): protect this dim, or compute it apart "
    "from the layers that should shrink"
)


@rule(
    aten.linalg_inv_ex, aten._linalg_det, aten._linalg_slogdet, aten.linalg_matrix_exp, aten.linalg_pinv,
    aten.linalg_qr, aten._linalg_svd, aten._linalg_eigh, aten.linalg_eig, aten.linalg_cholesky_ex,
    aten.linalg_lu_factor_ex, aten.linalg_lu,
)  # fmt: skip
def decomposition(site: Site) -> list[Labels]:
    """Rows and columns stay, of every output; the dims in front of them go through."""
    *batch, rows, columns = site.labels(site.arg(0))
    for dim in (rows, columns):
        site.freeze(dim, WHOLE)
    shapes = [site.output_shape(i) for i in range(len(site.call.outputs))]
    return [[*batch[: len(shape)], *fixed(shape[len(batch) :])] for shape in shapes]


_SOLVED: dict[object, tuple[int, int]] = {  # which arguments are the matrix and the right side
    aten._linalg_solve_ex: (0, 1),
    aten.linalg_solve_triangular: (0, 1),
    aten.cholesky_solve: (1, 0),
}


@rule(*_SOLVED)
def solve(site: Site) -> list[Labels]:
    """Columns of the right side are solved for one by one, where it is a matrix and stands on the right."""
    matrix, right = (site.arg(i) for i in _SOLVED[site.call.op.overloadpacket])
    own, sizes = list(site.labels(right)), site.shape(right)
    names = [a.name for a in site.call.op._schema.arguments]
    turned = "left" in names and not site.arg(names.index("left"), True)
    if (
        turned
        or len(sizes) < 2
        or sizes[:-1] != site.shape(matrix)[:-1]
        or sizes[:-2] != site.output_shape()[:-2]
    ):
        return freeze_everything(site, WHOLE)
    batch = [site.unify(a, b) for a, b in zip(own[:-2], site.labels(matrix)[:-2], strict=True)]
    for dim in (own[-2], *site.labels(matrix)[-2:]):
        site.freeze(dim, WHOLE)
    others = [site.output_shape(i) for i in range(1, len(site.call.outputs))]
    solution = [*batch, FIXED, own[-1]]
    return [solution, *([*batch[: len(shape)], *fixed(shape[len(batch) :])] for shape in others)]


@rule(aten._linalg_check_errors)
def checks(site: Site) -> list[Labels]:
    return []


@rule(aten.linalg_cross)
def cross(site: Site) -> list[Labels]:
    """Vectors of three numbers stay; everything beside them is elementwise."""
    labels = pointwise(site)[0]
    axis = int(site.arg(2, -1)) % len(labels)
    site.freeze(labels[axis], "multiplies vectors along this dim")
    labels[axis] = FIXED
    return [labels]


@rule(aten.block_diag)
def block_diagonal(site: Site) -> list[Labels]:
    """Rows after rows and columns after columns; vectors and numbers are rows."""
    rows, columns, sizes = [], [], []
    for ref in site.arg(0):
        own, shape = site.labels(ref), site.shape(ref)
        rows.append(own[-2] if len(shape) > 1 else FIXED)
        columns.append(own[-1] if shape else FIXED)
        sizes.append((shape[-2] if len(shape) > 1 else 1, shape[-1] if shape else 1))
    return [[joined(site, rows, [n for n, _ in sizes]), joined(site, columns, [n for _, n in sizes])]]


@rule(aten.rot90)
def turn(site: Site) -> list[Labels]:
    """A quarter is a flip of one of the two dims, then both change places."""
    labels, (a, b) = list(site.labels(site.arg(0))), site.arg(2, (0, 1))
    quarters = int(site.arg(1, 1)) % 4
    for axis in {0: (), 1: (b,), 2: (a, b), 3: (a,)}[quarters]:
        labels[axis] = tuple(c[::-1] for c in labels[axis])
    if quarters % 2:
        labels[a], labels[b] = labels[b], labels[a]
    return [labels]


@rule(aten.dist)
def distance(site: Site) -> list[Labels]:
    """A norm of the difference: what both lack adds nothing."""
    x, y = site.arg(0), site.arg(1)
    if site.shape(x) != site.shape(y) or float(site.arg(2, 2)) < 0:
        return freeze_everything(site, "compares these entry by entry")
    for axis, (one, other) in enumerate(zip(site.labels(x), site.labels(y), strict=True)):
        site.unify(one, other)
        site.reduce(x, axis)
        site.reduce(y, axis)
    return [[]]


@rule(aten.renorm)
def renorm(site: Site) -> list[Labels]:
    """Slices scaled by their norms, to which what is masked adds nothing; masked it stays."""
    x = site.arg(0)
    labels = list(site.labels(x))
    if float(site.arg(1)) <= 0:
        return freeze_everything(site, "scales by a norm that counts zeros")
    for axis in range(len(labels)):
        if axis != int(site.arg(2)) % len(labels):
            site.reduce(x, axis)
    return [labels]


@rule(aten.repeat_interleave)
def counts(site: Site) -> list[Labels]:
    """Places, each as often as its count says."""
    site.freeze(
        site.labels(site.tensors()[0])[0], "repeats each index by a count of its own; give one for all"
    )
    return [fixed(site.output_shape())]


@rule(aten.bincount)
def bincount(site: Site) -> list[Labels]:
    for ref in site.tensors():
        site.freeze(site.labels(ref)[0], "counts over this dim")
    return [fixed(site.output_shape())]


@rule(aten.bucketize, aten.searchsorted)
def bucketize(site: Site) -> list[Labels]:
    """Each number's place among sorted borders, which stay."""
    first = site.call.op.overloadpacket is aten.searchsorted
    borders, numbers = (site.arg(0), site.arg(1)) if first else (site.arg(1), site.arg(0))
    if not isinstance(numbers, Ref) or len(site.labels(borders)) > 1:
        return freeze_everything(site, "counts places among sorted borders")
    site.freeze(site.labels(borders)[0], "holds the borders that numbers are sorted by")
    return [list(site.labels(numbers))]


@rule(aten.isin)
def isin(site: Site) -> list[Labels]:
    """Whether each element is among some others, which stay."""
    elements, others = site.arg(0), site.arg(1)
    for ref in (r for r in (others,) if isinstance(r, Ref)):
        for dim in site.labels(ref):
            site.freeze(dim, "looks for elements in this dim")
    return [list(site.labels(elements)) if isinstance(elements, Ref) else fixed(site.output_shape())]


@rule(aten.index_fill, aten.index_fill_)
def index_fill(site: Site) -> list[Labels]:
    labels = list(site.labels(site.arg(0)))
    axis = int(site.arg(1)) % len(labels)
    for dim in (labels[axis], *site.labels(site.arg(2))):
        site.freeze(dim, "is written by position")
    return [labels]


@rule(aten.put, aten.put_, aten.take)
def by_number(site: Site) -> list[Labels]:
    return freeze_everything(site, "counts elements across all dims")
