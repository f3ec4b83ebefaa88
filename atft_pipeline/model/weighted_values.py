"""The one hand-differentiated operation of the model: the weighted sum of all features' values, row by row.

Written out because it is most of a training step: left to autograd, every intermediate is a tensor of features x width
x rows, and the step waits for memory. Here the rows pass in chunks that stay in the cache, and only the inputs are kept
for the backward pass, which computes each chunk again. A test holds it against autograd.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-5


class Table(NamedTuple):
    """The parameters of f features of width d."""

    embed: Tensor
    """[f, d] the embedding of a scalar x is embed x + offset."""
    offset: Tensor
    slope: Tensor
    """[f, d] the inner layer's input is slope x + shift: two linear maps of one scalar are one."""
    shift: Tensor
    gate: Tensor
    """[f, 2 d, d + 1] the gated layer, its bias in the last column."""
    gain: Tensor
    """[f, d] the closing layer normalisation."""
    bias: Tensor


def weighted_values(x: Tensor, weights: Tensor, table: Table, chunk: int) -> Tensor:
    """sum_f weights_f LN_f(e_f + GLU(gate_f [ELU(slope_f x_f + shift_f) ; 1])), e_f = embed_f x_f + offset_f.

    x and weights [f, rows] -> [d, rows]. Rows lie along the last axis, because d is too short to fill a vector unit.
    `chunk` rows are in work at once; their sums do not depend on it. Under autocast the products take its type, the
    rest stays in float32.
    """
    device = x.device.type
    half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        return _WeightedValues.apply(x, weights, chunk, half, *table)


class _Scratch:
    """Buffers that the chunks reuse: a fresh page costs several times a write to a warm one."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.buffers = like, {}  # type: tuple[Tensor, dict[tuple[str, tuple[int, ...]], Tensor]]

    def __call__(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        key = (name, shape)
        if key not in self.buffers:
            self.buffers[key] = self.like.new_empty(shape, dtype=dtype)
        return self.buffers[key]

    def in_type(self, dtype: torch.dtype, name: str, tensor: Tensor) -> Tensor:
        """`tensor` itself or its copy in another type."""
        return tensor if tensor.dtype == dtype else self(name, *tensor.shape, dtype=dtype).copy_(tensor)

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """The batched product, computed in the type of its factors and handed on in that of the rest."""
        shape = (a.shape[0], a.shape[1], b.shape[2])
        if a.dtype == self.like.dtype:
            return torch.bmm(a, b, out=self(name, *shape))
        return self(name, *shape).copy_(torch.bmm(a, b, out=self(f"{name} as computed", *shape, dtype=a.dtype)))


class _Chunk(NamedTuple):
    hidden: Tensor  # [f, d + 1, r], the last row is ones
    factor: Tensor  # the same in the type of the products
    gated: Tensor  # [f, 2 d, r]
    opened: Tensor  # [f, d, r] sigmoid of the second half
    value: Tensor  # [f, d, r] before the normalisation
    mean: Tensor  # [f, r]
    rstd: Tensor  # [f, r]


def _values(x: Tensor, p: Table, gate: Tensor, scratch: _Scratch) -> _Chunk:
    """`gate` is p.gate in the type of the products."""
    (f, d), r = p.embed.shape, x.shape[1]
    x = x[:, None]
    hidden = scratch("hidden", f, d + 1, r)
    hidden[:, d] = 1.0
    inner = hidden[:, :d]
    torch.mul(x, p.slope[:, :, None], out=inner)
    F.elu(inner.add_(p.shift[:, :, None]), inplace=True)
    factor = scratch.in_type(gate.dtype, "factor", hidden)
    gated = scratch.product("gated", gate, factor)
    opened = torch.sigmoid(gated[:, d:], out=scratch("opened", f, d, r))
    value = torch.mul(x, p.embed[:, :, None], out=scratch("value", f, d, r))
    value.add_(p.offset[:, :, None]).addcmul_(gated[:, :d], opened)
    mean = value.mean(1)
    square = torch.mul(value, value, out=scratch("work", f, d, r)).mean(1)
    return _Chunk(hidden, factor, gated, opened, value, mean, torch.rsqrt((square - mean * mean).clamp_(min=0) + EPS))


class _WeightedValues(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, chunk: int, half: torch.dtype, *parameters: Tensor
    ) -> Tensor:  # fmt: skip
        p, scratch = Table(*parameters), _Scratch(x)
        gate = p.gate.to(half)
        out = x.new_empty(p.embed.shape[1], x.shape[1])
        gain_t, bias_t = p.gain.t().contiguous(), p.bias.t().contiguous()
        for start in range(0, x.shape[1], chunk):
            rows = slice(start, start + chunk)
            w = weights[:, rows].contiguous()
            c = _values(x[:, rows].contiguous(), p, gate, scratch)
            scaled = w * c.rstd
            work = torch.mul(c.value, scaled[:, None], out=scratch("work", *c.value.shape))
            summed = torch.bmm(gain_t[:, None], work.transpose(0, 1))[:, 0]
            out[:, rows] = summed - gain_t @ (scaled * c.mean) + bias_t @ w
        ctx.save_for_backward(x, weights, *parameters)
        ctx.chunk, ctx.half = chunk, half
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weights, *parameters = ctx.saved_tensors
        p, scratch = Table(*parameters), _Scratch(x)
        gate = p.gate.to(ctx.half)
        grads = Table(*(torch.zeros_like(q) for q in parameters))
        # Laid out as its products come, so that adding them runs along memory.
        grads = grads._replace(gate=torch.zeros_like(p.gate.transpose(1, 2).contiguous()).transpose(1, 2))
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_w = torch.empty_like(weights)
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, x.shape[1], ctx.chunk):
                rows = slice(start, start + ctx.chunk)
                part_x, w, out = x[:, rows].contiguous(), weights[:, rows].contiguous(), grad[:, rows].contiguous()
                c = _values(part_x, p, gate, scratch)
                grad_w[:, rows], grad_value = _through_the_sum(w, out, c, p, grads, scratch)
                grad_inner = _through_the_gate(part_x, grad_value, c, gate, grads, scratch)
                if grad_x is not None:
                    grad_x[:, rows] = _over_width(p.embed, grad_value) + _over_width(p.slope, grad_inner)
        return grad_x, grad_w, None, None, *grads


def _over_width(table: Tensor, tensor: Tensor) -> Tensor:
    """sum_d table[f, d] tensor[f, d, r] -> [f, r]."""
    return torch.bmm(table[:, None], tensor)[:, 0]


def _through_the_sum(
    w: Tensor, out: Tensor, c: _Chunk, p: Table, grads: Table, scratch: _Scratch
) -> tuple[Tensor, Tensor]:
    """From the gradient `out` [d, r] of the sum to those of the weights [f, r] and the values [f, d, r].

    With n = (value - mean) rstd and P = sum_d gain n out: dL/dw = P + bias . out, and layer normalisation gives
    dL/dvalue = s gain out - s/d (gain . out) - (s P / d) n, where s = w rstd. `c.value` is overwritten.
    """
    d = p.embed.shape[1]
    scaled, gain_out = w * c.rstd, p.gain @ out
    work = torch.mul(c.value, out, out=scratch("work", *c.value.shape))
    agreement = c.rstd * (_over_width(p.gain, work) - c.mean * gain_out)
    grads.gain.add_(work.mul_(scaled[:, None]).sum(2)).sub_((scaled * c.mean) @ out.t())
    grads.bias.addmm_(w, out.t())

    slope = scaled * c.rstd * agreement * (-1.0 / d)
    level = scaled * gain_out * (-1.0 / d) - slope * c.mean
    grad_value = c.value.mul_(slope[:, None]).add_(level[:, None])
    torch.mul(p.gain[:, :, None], out, out=work)
    return agreement + p.bias @ out, grad_value.addcmul_(work, scaled[:, None])


def _through_the_gate(
    x: Tensor, grad_value: Tensor, c: _Chunk, gate: Tensor, grads: Table, scratch: _Scratch
) -> Tensor:  # fmt: skip
    """Add the parameters' gradients and return that of the inner layer's input [f, d, r]."""
    d = grad_value.shape[1]
    work, grad_gated = scratch("work", *grad_value.shape), scratch("grad_gated", *c.gated.shape)
    opened_part = c.gated[:, :d]
    torch.mul(grad_value, c.opened, out=grad_gated[:, :d])
    torch.mul(c.opened, opened_part, out=work)
    torch.sub(opened_part, work, out=work)
    torch.mul(grad_gated[:, :d], work, out=grad_gated[:, d:])
    through = scratch.in_type(gate.dtype, "through", grad_gated)
    grads.gate.add_(torch.bmm(c.factor, through.transpose(1, 2)).transpose(1, 2))

    scalar = torch.stack([x, torch.ones_like(x)], 1)  # [f, 2, r]
    _add_pair(grads.embed, grads.offset, torch.bmm(scalar, grad_value.transpose(1, 2)))
    grad_inner = scratch.product("work", gate[:, :, :d].transpose(1, 2), through)
    inner = c.hidden[:, :d]
    torch.ops.aten.elu_backward.grad_input(grad_inner, 1.0, 1.0, 1.0, True, inner, grad_input=grad_inner)
    _add_pair(grads.slope, grads.shift, torch.bmm(scalar, grad_inner.transpose(1, 2)))
    return grad_inner


def _add_pair(of_scalar: Tensor, of_one: Tensor, pair: Tensor) -> None:
    of_scalar.add_(pair[:, 0])
    of_one.add_(pair[:, 1])
