"""How much memory the activations of an inference take: the block that a runtime lays them out in.

The rules are those by which ONNX Runtime plans memory on a processor with AVX-512, from the second run on:

1. The input belongs to the caller, results lie outside the block. Views, and outputs that nobody reads, take nothing.
2. What works point by point writes over an input of the same size that nobody needs any more; so does a convolution
   whose result is only added to such a tensor. A batch norm is part of the convolution before it, if there is one.
3. Convolutions write channels in whole blocks. Norms, pools, concatenations and point by point operators keep that
   layout; any other reader gets a plain copy, and a convolution that reads what is plain a copy in blocks.
4. Memory that is free is taken by the next tensor of the same shape, and held for it.
5. All lies in one block, each buffer in the tightest gap that holds it.

Not counted: scratch memory within an operator, how the allocator rounds, and the copies by which ONNX Runtime does what
is a view here (for networks that shuffle channels that is too little).
"""

from collections import Counter
from dataclasses import dataclass, field

from lighten.network.record import OperatorCall, Record, Shape

NORMS = {"native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"}
NOT_IN_PLACE = {"silu", "gelu"}  # point by point, but their kernels need the input beside the output
NUM_CHANNELS = 16  # of a block
Form = tuple[int, Shape]  # bytes and shape


@dataclass(frozen=True, slots=True)
class Step:
    """What one operator reads and writes: tensors by number, without the input, weights and constants."""

    call: OperatorCall
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass(slots=True)
class Layout:
    """The steps of a pass, the form of every tensor, and which tensors are results.

    A tensor has the number of its storage; `another` gives a number to what is written in place, or copied.
    """

    forms: dict[int, Form]
    steps: list[Step] = field(default_factory=list)
    results: set[int] = field(default_factory=set)

    def another(self, index: int) -> int:
        self.forms[len(self.forms)] = self.forms[index]
        return len(self.forms) - 1


@dataclass(slots=True)
class Buffer:
    """Memory from step `first` to step `last`, both included."""

    form: Form
    first: int
    last: int


def peak_bytes(found: Record) -> int:
    """Bytes that the activations of the recorded pass take, results included, the input not."""
    layout = layout_of(found)
    return block_bytes(buffers_of(layout)) + sum(layout.forms[index][0] for index in layout.results)


def layout_of(found: Record) -> Layout:
    """The operators in order, with a step for each copy of rule 3."""
    layout = Layout({index: (size, ()) for index, size in enumerate(found.storages)})
    stood = found.given | found.inputs
    needed = found.results.union(*(call.reads for call in found.operators)) - stood
    present: dict[int, int] = {}  # {storage: the tensor that it holds now}
    copies: dict[int, int] = {}  # {tensor: its copy in the other layout}
    blocked: set[int] = set()
    for call in found.operators:
        reads = tuple(present.get(index, index) for index in call.reads if index not in stood)
        writes_blocked = writes_blocks(call)
        if keeps_layout(call):
            writes_blocked = bool(blocked.intersection(reads))
        else:
            reads_blocked = writes_blocked and call.inputs[0][1] >= NUM_CHANNELS
            others = [index for index in reads if (index in blocked) != reads_blocked]
            for index in others:
                if index not in copies:
                    copies[index] = layout.another(index)
                    layout.steps.append(Step(call, (index,), (copies[index],)))
            reads = tuple(copies[index] if index in others else index for index in reads)
        writes = []
        for index, shape in zip(call.writes, call.outputs, strict=False):
            is_view = index in call.reads and not is_pointwise(call)
            if index in needed and not is_view:
                if index in call.reads:
                    present[index] = layout.another(index)
                writes.append(present.get(index, index))
                layout.forms[writes[-1]] = form_of(found.storages[index], shape, writes_blocked)
        if writes_blocked:
            blocked.update(writes)
        layout.steps.append(Step(call, reads, tuple(writes)))
    layout.results = {present.get(index, index) for index in found.results - stood}
    return layout


def writes_blocks(call: OperatorCall) -> bool:
    """Whether an operator is a convolution of images: of one group, depthwise, or with groups of whole blocks."""
    if call.operator != "convolution" or len(call.outputs[0]) != 4:
        return False
    (num_filters, per_group, *_), num_outputs = call.inputs[1], call.outputs[0][1]
    if num_filters != num_outputs:
        return False  # a transposed one
    num_groups = call.inputs[0][1] // per_group
    widths = (per_group, num_outputs // num_groups)
    return num_groups == 1 or widths == (1, 1) or not any(width % NUM_CHANNELS for width in widths)


def form_of(size: int, shape: Shape, is_blocked: bool) -> Form:
    """What a tensor takes, and the shape that it takes; in the blocked layout with channels to fill the last block."""
    if not is_blocked:
        return size, shape
    num_channels = -(-shape[1] // NUM_CHANNELS) * NUM_CHANNELS
    return size // shape[1] * num_channels, (shape[0], num_channels, *shape[2:])


def keeps_layout(call: OperatorCall) -> bool:
    """Whether an operator works on the layout of what it reads."""
    if not call.outputs or len(call.outputs[0]) != 4:
        return False
    if is_pointwise(call):
        return len(set(call.inputs)) == 1
    return call.operator in NORMS | {"cat"} or "pool" in call.operator


def is_pointwise(call: OperatorCall) -> bool:
    """Whether every output depends on the inputs in its place alone."""
    return call.is_pointwise or call.operator == "hardswish"  # which PyTorch doesn't mark


def overwritten(layout: Layout, last: dict[int, int]) -> dict[int, int]:
    """{step: the tensor that it writes over}, by rule 2. last: {tensor: the last step that reads it}."""
    makers = {index: place for place, step in enumerate(layout.steps) for index in step.writes}
    readers = Counter(index for step in layout.steps for index in step.reads)
    found = {}

    def is_folded(step: Step) -> bool:  # a norm into the convolution that makes what it alone reads
        if step.call.operator not in NORMS or not step.reads or readers[step.reads[0]] > 1:
            return False
        return layout.steps[makers[step.reads[0]]].call.operator == "convolution"

    for place, step in enumerate(layout.steps):
        is_over = is_pointwise(step.call) and step.call.operator not in NOT_IN_PLACE
        if not (step.writes and (is_over or is_folded(step))):
            continue
        size = layout.forms[step.writes[0]][0]
        ending = [index for index in step.reads if last[index] == place and layout.forms[index][0] == size]
        ending.sort(key=makers.__getitem__)
        if ending:
            found[place] = ending[0]
        if len(ending) == 2 and step.call.operator == "add":
            maker = makers[ending[1]]
            if is_folded(layout.steps[maker]):
                maker = makers[layout.steps[maker].reads[0]]
            if layout.steps[maker].call.operator == "convolution":
                found[maker] = ending[0]
    return found


def buffers_of(layout: Layout) -> list[Buffer]:
    """The memory within the block, shared by rules 2 and 4, in the order of beginning."""
    last = {index: place for place, step in enumerate(layout.steps) for index in (*step.writes, *step.reads)}
    over = overwritten(layout, last)
    owner: dict[int, Buffer] = {}
    buffers: list[Buffer] = []
    for place, step in enumerate(layout.steps):
        for index in step.writes:
            if index in layout.results:
                continue
            buffer = owner.get(over.get(place, -1))
            if buffer is None:
                free = [b for b in buffers if b.last < place and b.form == layout.forms[index]]
                buffer = max(free, key=lambda b: b.last, default=None)
            if buffer is None:
                buffer = Buffer(layout.forms[index], place, place)
                buffers.append(buffer)
            buffer.last = max(buffer.last, last[index])
            owner[index] = buffer
    return buffers


def block_bytes(buffers: list[Buffer]) -> int:
    """The end of the block when each buffer, in the order of beginning, takes the tightest gap that holds it."""
    placed: list[tuple[int, Buffer]] = []
    end = 0
    for buffer in buffers:
        placed = sorted(((start, b) for start, b in placed if b.last >= buffer.first), key=lambda pair: pair[0])
        size, gaps, reached = buffer.form[0], [], 0
        for start, other in placed:
            gaps.append((start - reached, reached))
            reached = start + other.form[0]
        start = min((gap for gap in gaps if gap[0] >= size), default=(0, reached))[1]
        placed.append((start, buffer))
        end = max(end, start + size)
    return end
