"""FLOPs and bytes of every operator of the model, in closed form. No torch.

FLOPs: a multiply and an add are two; matrix products and attention count, elementwise operators do
not (as torch's FlopCounterMode and the "model FLOPs" of PaLM, arXiv 2204.02311, appendix B). The
causal mask is not deducted: attention counts all S x C scores, whether a kernel skips half or not.

Bytes: every operator reads each of its operands once and writes each of its results once, and
nothing stays in a cache between operators. Fused attention (SDPA, flash) moves Q, K, V and O only;
naive attention also writes and reads the scores and the probabilities. Rotary embedding is taken
as fused with the projections.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from workloads.shapes import Shape


class Kind(StrEnum):
    """What sort of operator it is; the backward pass costs each a different multiple."""

    LINEAR = "linear"
    ADAPTER = "adapter"  # a linear map of a low-rank update: trained, beside a frozen one
    ATTENTION = "attention"  # fused
    SCORES = "scores"  # one of the two products of naive attention
    ELEMENTWISE = "elementwise"


@dataclass(frozen=True, slots=True)
class Count:
    """FLOPs done and bytes moved."""

    flops: int
    bytes: float

    def __add__(self, other: "Count") -> "Count":
        return Count(self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other: "Count") -> "Count":
        return Count(self.flops - other.flops, self.bytes - other.bytes)

    def __mul__(self, times: int) -> "Count":
        return Count(self.flops * times, self.bytes * times)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator and its cost; an elementwise one keeps FLOPs that `total` leaves out."""

    name: str
    kind: Kind
    flops: int
    bytes: float


@dataclass(frozen=True, slots=True)
class ElementBytes:
    """Bytes per element of weights, activations and KV cache; scales of quantized ones included."""

    weight: float
    activation: float
    cache: float

    @classmethod
    def same(cls, size: float) -> "ElementBytes":
        """Return one size for all three."""
        return cls(size, size, size)


@dataclass(frozen=True, slots=True)
class Tokens:
    """`queries` new tokens for each of `batch` sequences that then hold `context` tokens."""

    batch: int
    queries: int
    context: int

    @property
    def new(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.queries


def prompt(batch: int, length: int) -> Tokens:
    """Return the tokens of a first pass over whole sequences."""
    return Tokens(batch, length, length)


def linear(name: str, tokens: int, wide: tuple[int, int], size: ElementBytes) -> Operator:
    """Count y = x W, x (tokens, in), W (in, out) with `wide` = (in, out)."""
    inputs, outputs = wide
    weights = inputs * outputs
    moved = weights * size.weight + tokens * (inputs + outputs) * size.activation
    return Operator(name, Kind.LINEAR, 2 * tokens * weights, moved)


def cached_linear(name: str, tokens: int, wide: tuple[int, int], size: ElementBytes) -> Operator:
    """Count a linear map whose result goes to the KV cache."""
    plain = linear(name, tokens, wide, size)
    moved = plain.bytes + tokens * wide[1] * (size.cache - size.activation)
    return Operator(name, Kind.LINEAR, plain.flops, moved)


def fused_attention(shape: Shape, tokens: Tokens, size: ElementBytes) -> list[Operator]:
    """Count softmax(Q K^T) V as one kernel: 4 B h S C e FLOPs; Q, K, V and O moved."""
    flops = 4 * tokens.batch * shape.hidden * tokens.queries * tokens.context
    outer = 2 * tokens.new * shape.hidden * size.activation
    cached = 2 * tokens.batch * tokens.context * shape.kv_hidden * size.cache
    return [Operator("attention", Kind.ATTENTION, flops, outer + cached)]


def naive_attention(shape: Shape, tokens: Tokens, size: ElementBytes) -> list[Operator]:
    """Count the two products and the softmax apart, with scores and probabilities in memory."""
    scores = tokens.batch * shape.heads * tokens.queries * tokens.context
    product = 2 * scores * shape.head
    outer = tokens.new * shape.hidden * size.activation
    cached = tokens.batch * tokens.context * shape.kv_hidden * size.cache
    moved = outer + cached + scores * size.activation
    return [
        Operator("qk_matmul", Kind.SCORES, product, moved),
        Operator("softmax", Kind.ELEMENTWISE, 5 * scores, 2 * scores * size.activation),
        Operator("sv_matmul", Kind.SCORES, product, moved),
    ]


ATTENTIONS = {"sdpa": fused_attention, "naive": naive_attention}


def layer_operators(
    shape: Shape, tokens: Tokens, size: ElementBytes, attention: str = "sdpa"
) -> list[Operator]:
    """List the operators of one layer in the order they run."""
    new, hidden, mlp, wide = tokens.new, shape.hidden, shape.mlp, shape.linears
    return [
        _norm("attention_norm", new * hidden, size),
        linear("q_proj", new, wide["q_proj"], size),
        cached_linear("k_proj", new, wide["k_proj"], size),
        cached_linear("v_proj", new, wide["v_proj"], size),
        *ATTENTIONS[attention](shape, tokens, size),
        linear("o_proj", new, wide["o_proj"], size),
        _add("attention_add", new * hidden, size),
        _norm("mlp_norm", new * hidden, size),
        linear("gate_proj", new, wide["gate_proj"], size),
        linear("up_proj", new, wide["up_proj"], size),
        _elementwise("mlp_act", 2 * new * mlp, 3 * new * mlp, size),
        linear("down_proj", new, wide["down_proj"], size),
        _add("mlp_add", new * hidden, size),
    ]


def outer_operators(
    shape: Shape, tokens: Tokens, size: ElementBytes, logits: int
) -> list[Operator]:
    """List what runs once: embedding, last norm and head, the head for `logits` tokens."""
    rows = tokens.new * shape.hidden * (size.weight + size.activation)
    return [
        Operator("embedding", Kind.ELEMENTWISE, 0, rows),
        _norm("norm", logits * shape.hidden, size),
        linear("lm_head", logits, (shape.hidden, shape.vocabulary), size),
    ]


def forward(
    shape: Shape,
    tokens: Tokens,
    size: ElementBytes,
    *,
    logits: int | None = None,
    attention: str = "sdpa",
) -> Count:
    """Count one forward pass; `logits` is how many tokens the head runs for (default: all new)."""
    wanted = tokens.new if logits is None else logits
    layer = total(layer_operators(shape, tokens, size, attention))
    return layer * shape.layers + total(outer_operators(shape, tokens, size, wanted))


class Trained(StrEnum):
    """Which weights a training step changes."""

    ALL = "all"
    LORA = "lora"  # low-rank updates of every linear map of every layer, nothing else
    LAST = "last"  # the last layer, the norm after it and the head
    HEAD = "head"  # the head


def training_step(
    shape: Shape,
    tokens: Tokens,
    size: ElementBytes,
    *,
    trained: str = Trained.ALL,
    rank: int = 8,
    checkpointing: bool = False,
    attention: str = "sdpa",
) -> dict[str, Count]:
    """Count one step with AdamW, by `forward`, `backward` and `optimizer`.

    `rank` is that of LoRA's updates. Checkpointing keeps the input of each layer alone, and the
    backward pass runs the layer again up to its last product, whose result nothing needs.
    """
    mode = Trained(trained)
    layer = layer_operators(shape, tokens, size, attention)
    if mode is Trained.LORA:
        layer = with_adapters(layer, shape, tokens.new, size, rank)
    outer = outer_operators(shape, tokens, size, tokens.new)
    again = total(_recomputed(layer)) * _layers_reached(shape, mode)
    behind = _backward(shape, layer, outer, mode)
    return {
        "forward": total(layer) * shape.layers + total(outer),
        "backward": behind + again if checkpointing else behind,
        "optimizer": adamw_step(trained_parameters(shape, mode, rank), size.weight),
    }


def with_adapters(
    layer: Iterable[Operator], shape: Shape, tokens: int, size: ElementBytes, rank: int
) -> list[Operator]:
    """Return a layer's operators with W x + B (A x) for W x (Hu et al., LoRA, arXiv 2106.09685)."""
    operators = []
    for operator in layer:
        operators.append(operator)
        if operator.kind is Kind.LINEAR:
            inputs, outputs = shape.linears[operator.name]
            down = linear(f"{operator.name}.lora_a", tokens, (inputs, rank), size)
            up = linear(f"{operator.name}.lora_b", tokens, (rank, outputs), size)
            operators += [replace(part, kind=Kind.ADAPTER) for part in (down, up)]
            operators.append(_add(f"{operator.name}.lora_add", tokens * outputs, size))
    return operators


def trained_parameters(shape: Shape, trained: str, rank: int = 8) -> int:
    """Return how many weights `trained` changes."""
    head = shape.hidden * shape.vocabulary
    return {
        Trained.ALL: shape.parameters,
        Trained.LORA: shape.lora_parameters(rank),
        Trained.LAST: shape.layer_linear_parameters + 3 * shape.hidden + head,
        Trained.HEAD: head,
    }[Trained(trained)]


def gradients(operators: Iterable[Operator], *, weights: bool = True, inputs: bool = True) -> Count:
    """Count the gradients of operators, of their weights, of their inputs or of both.

    The gradient of a product by either operand is a product of the same size over tensors of the
    same sizes. Fused attention computes its scores again: 5 products of the size of its 2 (Dao,
    FlashAttention-2, arXiv 2307.08691); it moves Q, K, V, O, their gradients: twice the forward
    bytes. Naive attention and elementwise operators are taken at twice their bytes.
    """
    times = {Kind.LINEAR: weights + inputs, Kind.ADAPTER: 1 + inputs}
    count = Count(0, 0.0)
    for operator in operators:
        moved = times.get(operator.kind, 2 * inputs)
        halves = 5 * inputs if operator.kind is Kind.ATTENTION else 2 * moved
        backwards = replace(
            operator, flops=operator.flops * halves // 2, bytes=operator.bytes * moved
        )
        count += total([backwards])
    return count


def _backward(
    shape: Shape, layer: Sequence[Operator], outer: Sequence[Operator], trained: Trained
) -> Count:
    embedding, norm, head = outer
    if trained is Trained.HEAD:
        return gradients([head], inputs=False)
    learns = trained is not Trained.LORA
    behind = gradients(layer, weights=learns) * _layers_reached(shape, trained)
    behind += gradients([norm]) + gradients([head], weights=learns)
    if trained is Trained.ALL:
        return behind + gradients([embedding])
    return behind if learns else behind - _unasked(layer)


FROZEN_BEFORE = "attention_norm"
READ_THE_LAYER = ("q_proj", "k_proj", "v_proj", "q_proj.lora_a", "k_proj.lora_a", "v_proj.lora_a")


def _unasked(layer: Iterable[Operator]) -> Count:
    """Count the input gradients that no weight before the first layer with adapters asks for."""
    operators = {operator.name: operator for operator in layer}
    products = total(operators[name] for name in READ_THE_LAYER)
    return products + gradients([operators[FROZEN_BEFORE]])


def _layers_reached(shape: Shape, trained: Trained) -> int:
    """Return how many layers the backward pass runs through."""
    partly = {Trained.LAST: 1, Trained.HEAD: 0}
    return partly.get(trained, shape.layers)


def _recomputed(layer: Sequence[Operator]) -> list[Operator]:
    """Return a layer's operators before its last product."""
    products = [i for i, operator in enumerate(layer) if operator.kind is not Kind.ELEMENTWISE]
    return list(layer[: products[-1]])


ADAMW_FLOPS = 14
"""Per weight: decay 1, first moment 3, second moment 4, root 1, correction 1, epsilon 1,
quotient 1, step size 1, update 1 (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2)."""


def adamw_step(parameters: int, element_bytes: float) -> Count:
    """Count a fused AdamW step: weight and two moments read and written, the gradient read."""
    return Count(ADAMW_FLOPS * parameters, 7 * element_bytes * parameters)


def total(operators: Iterable[Operator]) -> Count:
    """Add up operators: all bytes, and the FLOPs of products."""
    count = Count(0, 0.0)
    for operator in operators:
        flops = 0 if operator.kind is Kind.ELEMENTWISE else operator.flops
        count += Count(flops, operator.bytes)
    return count


def _norm(name: str, elements: int, size: ElementBytes) -> Operator:
    return _elementwise(name, 7 * elements, 2 * elements, size)


def _add(name: str, elements: int, size: ElementBytes) -> Operator:
    return _elementwise(name, elements, 3 * elements, size)


def _elementwise(name: str, flops: int, elements: int, size: ElementBytes) -> Operator:
    return Operator(name, Kind.ELEMENTWISE, flops, elements * size.activation)
