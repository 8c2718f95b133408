"""Reinforcement learning and optimisation by many small steps."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from benchmarks.loop_kinds.loop import Loops, Run

_loops = Loops()


class _Balance:
    """A toy environment whose observations are numpy arrays, as gymnasium's are."""

    def __init__(self) -> None:
        self._rng, self.state = np.random.default_rng(0), np.zeros(4, np.float32)

    def reset(self) -> np.ndarray:
        self.state = self._rng.uniform(-0.05, 0.05, 4).astype(np.float32)
        return self.state

    def step(self, action: int) -> tuple[np.ndarray, float]:
        self.state = self.state + np.float32(0.01) * (np.float32(action) - np.float32(0.5))
        return self.state, 1.0


@_loops("REINFORCE, observations from numpy", 20)
def _reinforce() -> Run:
    policy = nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.6), nn.ReLU(), nn.Linear(32, 2))
    optimizer, env = torch.optim.Adam(policy.parameters(), lr=1e-2), _Balance()

    def run(count: int) -> None:
        for _ in range(count):
            observation, log_probs, rewards = env.reset(), [], []
            for _t in range(20):
                dist = Categorical(logits=policy(torch.from_numpy(observation).unsqueeze(0)))
                action = dist.sample()
                log_probs.append(dist.log_prob(action))
                observation, reward = env.step(action.item())
                rewards.append(reward)
            returns, total = [], 0.0
            for reward in reversed(rewards):
                total = reward + 0.99 * total
                returns.insert(0, total)
            target = torch.tensor(returns)
            target = (target - target.mean()) / (target.std() + 1e-8)
            loss = torch.stack([-lp * g for lp, g in zip(log_probs, target, strict=True)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


@_loops("actor-critic", 20)
def _actor_critic() -> Run:
    body, actor, critic = nn.Linear(4, 32), nn.Linear(32, 2), nn.Linear(32, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *actor.parameters(), *critic.parameters()], lr=3e-2)
    env = _Balance()

    def run(count: int) -> None:
        for _ in range(count):
            observation, saved, rewards = env.reset(), [], []
            for _t in range(20):
                h = F.relu(body(torch.from_numpy(observation).float()))
                dist = Categorical(F.softmax(actor(h), dim=-1))
                action = dist.sample()
                saved.append((dist.log_prob(action), critic(h)))
                observation, reward = env.step(action.item())
                rewards.append(reward)
            target = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
            policy_losses, value_losses = [], []
            for (log_prob, value), r in zip(saved, target, strict=True):
                policy_losses.append(-log_prob * (r - value.item()))
                value_losses.append(F.smooth_l1_loss(value, r.view(1)))
            optimizer.zero_grad()
            loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum()
            loss.backward()
            optimizer.step()

    return run


@_loops("PPO over buffers", 8)
def _ppo() -> Run:
    actor = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    params = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(params, lr=2.5e-4, eps=1e-5)
    obs, actions, logprobs = torch.zeros(16, 4, 4), torch.zeros(16, 4), torch.zeros(16, 4)
    rewards, values = torch.zeros(16, 4), torch.zeros(16, 4)

    def rollout() -> torch.Tensor:
        now = torch.randn(4, 4)
        for t in range(16):
            obs[t] = now
            with torch.no_grad():
                dist = Categorical(logits=actor(now))
                action = dist.sample()
                values[t] = critic(now).flatten()
                logprobs[t] = dist.log_prob(action)
            actions[t] = action
            rewards[t] = (action == 1).float()
            now = now + 0.1 * torch.randn(4, 4)
        return now

    def run(count: int) -> None:
        for _ in range(count):
            last = rollout()
            with torch.no_grad():
                advantages, gae, following = torch.zeros_like(rewards), torch.zeros(4), critic(last).flatten()
                for t in reversed(range(16)):
                    gae = rewards[t] + 0.99 * following - values[t] + 0.95 * 0.99 * gae
                    advantages[t], following = gae, values[t]
                returns = (advantages + values).view(-1)
            b_obs, b_adv, b_logp, b_act = obs.view(-1, 4), advantages.view(-1), logprobs.view(-1), actions.view(-1)
            for _epoch in range(2):
                for mb in torch.randperm(64).split(16):
                    dist = Categorical(logits=actor(b_obs[mb]))
                    ratio = (dist.log_prob(b_act[mb]) - b_logp[mb]).exp()
                    loss = torch.max(-b_adv[mb] * ratio, -b_adv[mb] * ratio.clamp(0.8, 1.2)).mean()
                    loss = loss + 0.5 * (critic(b_obs[mb]).view(-1) - returns[mb]).pow(2).mean()
                    loss = loss - 0.01 * dist.entropy().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(params, 0.5)
                    optimizer.step()

    return run


@_loops("L-BFGS with a closure", 15)
def _lbfgs() -> Run:
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=20, tolerance_grad=0, tolerance_change=0)
    x, y = torch.rand(64, 2), torch.rand(64, 1)

    def run(count: int) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        for _ in range(count):
            optimizer.step(closure)

    return run


@_loops("meta-learning with torch.func", 25)
def _meta() -> Run:
    from torch.func import functional_call, grad

    net = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def loss_of(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(functional_call(net, params, (x,)), y)

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            losses, params = [], dict(net.named_parameters())
            for _task in range(4):
                amplitude, x = torch.rand(1) * 4 + 0.1, torch.rand(10, 1) * 10 - 5
                y = amplitude * torch.sin(x)
                grads = grad(loss_of)(params, x, y)
                adapted = {name: p - 0.01 * grads[name] for name, p in params.items()}
                losses.append(loss_of(adapted, x, y))
            torch.stack(losses).mean().backward()
            optimizer.step()

    return run


POLICIES = tuple(_loops.found)
