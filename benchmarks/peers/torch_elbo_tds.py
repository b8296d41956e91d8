# mypy: ignore-errors
# It runs in an environment of its own, where PyTorch is.
"""ELBO_TDS as one would write it in PyTorch, of the sizes on standard input; prints training rows a second.

Needs PyTorch alone. The data are random: only sizes matter to speed.
"""

from __future__ import annotations

import itertools
import json
import sys
import time

import torch
from torch import nn

size = json.load(sys.stdin)
torch.manual_seed(0)
torch.set_num_threads(size["threads"])
E, M, P, ALPHA = size["embedding"], size["copies"], 0.2, 0.01
SESSIONS, ROWS = size["sessions"], size["rows"]


class Side(nn.Module):
    def __init__(self, fields):
        super().__init__()
        self.s, self.c, self.q, self.length = fields["statistical"], fields["categorical"], fields["sequential"], 20
        width = (self.s + self.c + self.q) * E
        self.buckets = nn.Embedding(max(self.s, 1) * 51, E, sparse=False)
        self.codes = nn.Embedding(max(self.c + self.q, 1) * size["vocabulary"], E, sparse=size["sparse"])
        for table in (self.buckets, self.codes):
            nn.init.normal_(table.weight, std=0.1)
        self.encoder, self.decoder = nn.Linear(width, size["latent"]), nn.Linear(size["latent"], width)
        widths = [size["latent"], *size["hidden"]]
        self.network = nn.Sequential(
            *(layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU()))
        )
        self.register_buffer("bucket_start", torch.arange(self.s) * 51)
        self.register_buffer("code_start", torch.arange(self.c) * size["vocabulary"])
        self.register_buffer("list_start", (self.c + torch.arange(self.q))[:, None] * size["vocabulary"])

    def clean(self, rows):
        bucket, code, entries, there = rows
        mean = (self.codes(entries + self.list_start) * there[..., None]).sum(-2) / there.sum(-1, True).clamp(min=1)
        parts = (self.buckets(bucket + self.bucket_start), self.codes(code + self.code_start), mean)
        return torch.cat([part.flatten(-2) for part in parts], -1)

    def copies(self, rows):
        bucket, code, entries, there = rows
        hit = torch.rand(M, *bucket.shape) < P
        bucket = (bucket + hit * torch.randint(-2, 3, (M, *bucket.shape))).clamp(0, 49)
        embedded = self.codes(code + self.code_start)
        hit = torch.rand(M, *code.shape, 1) < P
        embedded = torch.where(hit, nn.functional.dropout(embedded.expand(M, *embedded.shape), P), embedded)
        there = there * (torch.rand(M, *there.shape) >= P)
        mean = torch.einsum("mbql,bqle->mbqe", there, self.codes(entries + self.list_start))
        mean = mean / there.sum(-1, True).clamp(min=1)
        parts = (self.buckets(bucket + self.bucket_start), embedded, mean)
        return torch.cat([part.flatten(-2) for part in parts], -1)

    def loss(self, x):
        mean = self.encoder(x)
        z = mean + torch.randn_like(mean)
        return ((self.decoder(z) - x).square().sum(-1) + (z - z.mean(0)).square().sum(-1)).mean()


def random_rows(n, fields):
    length = 20
    return (
        torch.randint(0, 50, (n, fields["statistical"])),
        torch.randint(0, size["vocabulary"], (n, fields["categorical"])),
        torch.randint(0, size["vocabulary"], (n, fields["sequential"], length)),
        torch.ones(n, fields["sequential"], length),
    )


user, item = Side(size["user"]), Side(size["item"])
sparse = [side.codes.weight for side in (user, item)] if size["sparse"] else []
dense = [p for side in (user, item) for p in side.parameters() if all(p is not other for other in sparse)]
optimisers = [torch.optim.Adam(dense, lr=3e-4, fused=True)]
if sparse:
    optimisers.append(torch.optim.SparseAdam(sparse, lr=3e-4))
session = torch.arange(ROWS) * SESSIONS // ROWS
batches = [
    (random_rows(SESSIONS, size["user"]), random_rows(ROWS, size["item"]), (torch.rand(ROWS) < 0.2).float())
    for _ in range(8)
]


def step(number):
    of_users, of_items, labels = batches[number % len(batches)]
    score = (
        user.network(user.encoder(user.clean(of_users)))[session] * item.network(item.encoder(item.clean(of_items)))
    ).sum(-1)
    repeated = tuple(part[session] for part in of_users)
    total = nn.functional.binary_cross_entropy_with_logits(score, labels)
    total = total + ALPHA * (user.loss(user.copies(repeated)) + item.loss(item.copies(of_items))) / 2
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    total.backward()
    for optimiser in optimisers:
        optimiser.step()


for number in range(5):
    step(number)
began, number = time.perf_counter(), 0
while number < 10 or time.perf_counter() - began < size["seconds"]:
    step(number)
    number += 1
print(json.dumps({"rows_per_second": number * ROWS / (time.perf_counter() - began), "torch": torch.__version__}))
