"""A tiny model and the loop that ATLOP's train script runs, with the stand-in for apex."""

import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from segdre_plugin.backbones.clones import apex as amp
from segdre_plugin.backbones.clones.compat import AdamW

LOW = {"devices": ("cpu",), "dtype": torch.bfloat16}


class Net(nn.Module):
    """Two layers, a dropout, and a loss as first output."""

    def __init__(self):
        super().__init__()
        self.encoder, self.bilinear, self.drop = nn.Linear(6, 8), nn.Linear(8, 3), nn.Dropout(0.1)

    def forward(self, x, labels=None):
        logits = self.bilinear(self.drop(torch.tanh(self.encoder(x))))
        if labels is None:
            return (logits,)
        return nn.functional.cross_entropy(logits.float(), labels), logits


def build():
    torch.manual_seed(0)
    model = Net()
    groups = [{"params": list(model.encoder.parameters())}, {"params": list(model.bilinear.parameters()), "lr": 5e-2}]
    return model, AdamW(groups, lr=1e-2)


def batches(n=12):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 16, 6, generator=generator)
    return list(zip(x, x[..., :3].argmax(-1), strict=True))


def train(model, optimizer, n=12, accumulation=1, clip=1.0):
    """Train as ATLOP does: scheduler made after initialize, scaled loss, clipped master parameters."""
    torch.manual_seed(1)
    steps = n // accumulation
    scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=steps)
    losses, norms = [], []
    model.zero_grad()
    for step, (x, labels) in enumerate(batches(n)):
        model.train()
        loss = model(x, labels)[0] / accumulation
        with amp.scale_loss(loss, optimizer) as scaled:
            scaled.backward()
        if step % accumulation == 0:
            if clip:
                norms.append(nn.utils.clip_grad_norm_(amp.master_params(optimizer), clip).item())
            optimizer.step()
            scheduler.step()
            model.zero_grad()
        losses.append(loss.item())
    return losses, norms
