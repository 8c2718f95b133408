"""Reinforcement learning: cleanrl, stable-baselines3, spinning up, torchrl, tianshou."""

# ruff: noqa: NPY002  (the random numbers that such programs use)

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from idioms.program import Idioms

IDIOMS = Idioms()


@IDIOMS("cleanrl", "proximal policy optimisation over storage tensors filled step by step")
def cleanrl_ppo():
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
            self.actor = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
            for layer in self.critic[2], self.actor[2]:
                nn.init.orthogonal_(layer.weight, 0.5)
                nn.init.constant_(layer.bias, 0.0)

        def act(self, x, action=None):
            probs = torch.distributions.Categorical(logits=self.actor(x))
            action = probs.sample() if action is None else action
            return action, probs.log_prob(action), probs.entropy(), self.critic(x)

    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-3, eps=1e-5)
    obs, actions = torch.zeros(6, 2, 3), torch.zeros(6, 2)
    logprobs, rewards, dones, values = (torch.zeros(6, 2) for _ in range(4))
    next_obs, next_done = torch.randn(2, 3), torch.zeros(2)
    for _ in range(2):
        for step in range(6):
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                action, logprob, _, value = agent.act(next_obs)
                values[step] = value.flatten()
            actions[step], logprobs[step] = action, logprob
            rewards[step] = torch.tensor(np.random.rand(2)).view(-1)
            next_obs, next_done = next_obs + 0.1 * torch.randn(2, 3), (torch.rand(2) > 0.8).float()
        with torch.no_grad():
            next_value = agent.critic(next_obs).reshape(1, -1)
            advantages, lastgaelam = torch.zeros_like(rewards), 0
            for t in reversed(range(6)):
                nonterminal = 1.0 - (next_done if t == 5 else dones[t + 1])
                nextvalues = next_value if t == 5 else values[t + 1]
                delta = rewards[t] + 0.99 * nextvalues * nonterminal - values[t]
                advantages[t] = lastgaelam = delta + 0.99 * 0.95 * nonterminal * lastgaelam
            returns = advantages + values
        b_obs, b_actions = obs.reshape(-1, 3), actions.reshape(-1)
        b_logprobs, b_advantages, b_returns = logprobs.reshape(-1), advantages.reshape(-1), returns.reshape(-1)
        b_inds, clipfracs = np.arange(12), []
        for _epoch in range(2):
            np.random.shuffle(b_inds)
            for start in range(0, 12, 6):
                mb = b_inds[start : start + 6]
                # differences: agent
                _, newlogprob, entropy, newvalue = agent.act(b_obs[mb], b_actions.long()[mb])
                ratio = (newlogprob - b_logprobs[mb]).exp()
                with torch.no_grad():
                    clipfracs += [((ratio - 1.0).abs() > 0.2).float().mean().item()]
                adv = b_advantages[mb]
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                pg_loss = torch.max(-adv * ratio, -adv * torch.clamp(ratio, 0.8, 1.2)).mean()
                v_loss = 0.5 * ((newvalue.view(-1) - b_returns[mb]) ** 2).mean()
                loss = pg_loss - 0.01 * entropy.mean() + v_loss * 0.5
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
    return locals()


@IDIOMS("cleanrl", "a categorical distribution projected by index_add_ into the slots of a target")
def cleanrl_c51():
    q_network, target_network = nn.Linear(3, 2 * 5), nn.Linear(3, 2 * 5)
    target_network.load_state_dict(q_network.state_dict())
    optimizer = torch.optim.Adam(q_network.parameters(), lr=0.01)
    atoms = torch.linspace(-1, 1, 5)

    def pmfs(net, x):
        return torch.softmax(net(x).view(len(x), 2, 5), dim=2)

    for _ in range(3):
        s, a, r, s2, done = torch.randn(4, 3), torch.randint(2, (4,)), torch.randn(4, 1), torch.randn(4, 3), 0.0
        with torch.no_grad():
            p = pmfs(target_network, s2)
            next_pmfs = p[torch.arange(4), (p * atoms).sum(2).argmax(1)]
            tz = (r + 0.99 * atoms * (1 - done)).clamp(-1, 1)
            b = (tz + 1) / 0.5
            low, up = b.floor().clamp(0, 4), b.ceil().clamp(0, 4)
            d_m_l = (up + (low == up).float() - b) * next_pmfs
            d_m_u = (b - low) * next_pmfs
            target_pmfs = torch.zeros_like(next_pmfs)
            for i in range(4):
                target_pmfs[i].index_add_(0, low[i].long(), d_m_l[i])
                target_pmfs[i].index_add_(0, up[i].long(), d_m_u[i])
        # differences: q_network
        old = pmfs(q_network, s)[torch.arange(4), a]
        loss = (-(target_pmfs * old.clamp(min=1e-5, max=1 - 1e-5).log()).sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for mine, theirs in zip(target_network.parameters(), q_network.parameters(), strict=True):
            mine.data.copy_(0.5 * theirs.data + 0.5 * mine.data)
    return locals()


@IDIOMS("tianshou", "prioritised replay: numpy priorities written after each loss")
def tianshou_prioritised():
    class Buffer:
        def __init__(self, size):
            self.obs, self.next_obs = np.zeros((size, 3), np.float32), np.zeros((size, 3), np.float32)
            self.act, self.rew = np.zeros(size, np.int64), np.zeros(size, np.float32)
            self.priority, self.at = np.ones(size), 0

        def add(self, obs, act, rew, next_obs):
            i = self.at % len(self.act)
            self.obs[i], self.act[i], self.rew[i], self.next_obs[i] = obs, act, rew, next_obs
            self.at += 1

        def sample(self, n):
            p = self.priority / self.priority.sum()
            indices = np.random.choice(len(p), n, p=p)
            weight = (len(p) * p[indices]) ** -0.4
            weight /= weight.max()
            return indices, torch.as_tensor(weight, dtype=torch.get_default_dtype())

    buffer, q = Buffer(8), nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    target, optimizer = copy.deepcopy(q), torch.optim.Adam(q.parameters(), lr=0.01)
    for step in range(4):
        for _ in range(3):
            buffer.add(np.random.rand(3), np.random.randint(2), np.random.rand(), np.random.rand(3))
        indices, weight = buffer.sample(4)
        obs, next_obs = (torch.as_tensor(x[indices]).to(weight) for x in (buffer.obs, buffer.next_obs))
        act, rew = torch.as_tensor(buffer.act[indices]), torch.as_tensor(buffer.rew[indices]).to(weight)
        with torch.no_grad():
            returns = rew + 0.9 * target(next_obs).gather(1, q(next_obs).argmax(1, keepdim=True)).squeeze(1)
        optimizer.zero_grad()
        # differences: q
        td = returns - q(obs)[torch.arange(4), act]
        loss = (td.pow(2) * weight).mean()
        loss.backward()
        optimizer.step()
        buffer.priority[indices] = td.detach().abs().numpy() + 1e-6
        if step % 2:
            target.load_state_dict(q.state_dict())
    return locals()


@IDIOMS("stable-baselines3", "soft actor-critic with Polyak updates by out=")
def sb3_sac():
    def polyak_update(params, target_params, tau):
        with torch.no_grad():
            for param, target_param in zip(params, target_params, strict=True):
                target_param.data.mul_(1 - tau)
                torch.add(target_param.data, param.data, alpha=tau, out=target_param.data)

    actor, critic, critic_target = nn.Linear(3, 2), nn.Linear(4, 1), nn.Linear(4, 1)
    critic_target.load_state_dict(critic.state_dict())
    log_ent_coef = torch.log(torch.ones(1)).requires_grad_(True)
    ent_opt, actor_opt, critic_opt = (
        torch.optim.Adam(ps, lr=0.01) for ps in ([log_ent_coef], actor.parameters(), critic.parameters())
    )

    def act(obs):
        mean, log_std = actor(obs).chunk(2, 1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-2, 1).exp())
        x = normal.rsample()
        a = torch.tanh(x)
        return a, (normal.log_prob(x) - torch.log(1 - a.pow(2) + 1e-6)).sum(1, keepdim=True)

    for _ in range(2):
        s, a, r, s2 = torch.randn(5, 3), torch.rand(5, 1), torch.randn(5, 1), torch.randn(5, 3)
        # differences: log_ent_coef
        actions_pi, log_prob = act(s)
        ent_coef = torch.exp(log_ent_coef.detach())
        ent_coef_loss = -(log_ent_coef * (log_prob - 1.0).detach()).mean()
        ent_opt.zero_grad()
        ent_coef_loss.backward()
        ent_opt.step()
        with torch.no_grad():
            next_actions, next_log_prob = act(s2)
            target_q = r + 0.99 * (critic_target(torch.cat((s2, next_actions), 1)) - ent_coef * next_log_prob)
        # differences: critic
        critic_loss = 0.5 * F.mse_loss(critic(torch.cat((s, a), 1)), target_q)
        critic_opt.zero_grad()
        critic_loss.backward()
        critic_opt.step()
        # differences: critic
        actor_loss = (ent_coef * log_prob - critic(torch.cat((s, actions_pi), 1))).mean()
        actor_opt.zero_grad()
        actor_loss.backward()
        actor_opt.step()
        polyak_update(critic.parameters(), critic_target.parameters(), 0.05)
    return locals()


@IDIOMS("spinning up", "delayed policy updates with the critic frozen meanwhile")
def spinup_td3():
    pi, q = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1), nn.Tanh()), nn.Linear(4, 1)
    pi_targ, q_targ = copy.deepcopy(pi), copy.deepcopy(q)
    for p in [*pi_targ.parameters(), *q_targ.parameters()]:
        p.requires_grad = False
    pi_opt, q_opt = torch.optim.Adam(pi.parameters(), lr=0.01), torch.optim.Adam(q.parameters(), lr=0.01)
    for timer in range(4):
        o, a, r, o2 = torch.randn(4, 3), torch.rand(4, 1), torch.randn(4, 1), torch.randn(4, 3)
        q_opt.zero_grad()
        # differences: q
        with torch.no_grad():
            a2 = pi_targ(o2)
            a2 += torch.clamp(torch.randn_like(a2) * 0.2, -0.5, 0.5)
            a2.clamp_(-1, 1)
            backup = r + 0.99 * q_targ(torch.cat([o2, a2], -1))
        loss_q = ((q(torch.cat([o, a], -1)) - backup) ** 2).mean()
        loss_q.backward()
        q_opt.step()
        if timer % 2 == 0:
            for p in q.parameters():
                p.requires_grad = False
            pi_opt.zero_grad()
            # differences: pi
            loss_pi = -q(torch.cat([o, pi(o)], -1)).mean()
            loss_pi.backward()
            pi_opt.step()
            for p in q.parameters():
                p.requires_grad = True
            with torch.no_grad():
                pairs = [*zip(q.parameters(), q_targ.parameters(), strict=True)]
                for p, p_targ in [*pairs, *zip(pi.parameters(), pi_targ.parameters(), strict=True)]:
                    p_targ.data.mul_(0.9)
                    p_targ.data.add_(0.1 * p.data)
    return locals()


@IDIOMS("torchrl", "a dictionary of batched tensors updated in place, returns normalised by running moments")
def torchrl_collector():
    policy, value = nn.Linear(3, 2), nn.Linear(3, 1)
    optimizer = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=0.01)
    td = {"obs": torch.zeros(5, 3), "reward": torch.zeros(5, 1), "action": torch.zeros(5, dtype=torch.long)}
    mean, var, count = torch.zeros(1), torch.ones(1), torch.zeros(())
    for _ in range(3):
        td["obs"].normal_()
        td["reward"].uniform_()
        with torch.no_grad():
            td["action"].copy_(torch.distributions.Categorical(logits=policy(td["obs"])).sample())
            td["value"] = value(td["obs"])
            target = td["reward"].flip(0).cumsum(0).flip(0)
            count.add_(len(target))
            mean.lerp_(target.mean(0), len(target) / count)
            var.lerp_(target.var(0), len(target) / count)
            advantage = target.sub(mean).div_(var.sqrt().clamp_min_(1e-6)) - td["value"]
        # differences: policy, value
        log_prob = torch.distributions.Categorical(logits=policy(td["obs"])).log_prob(td["action"])
        losses = {
            "objective": -(log_prob[:, None] * advantage).mean(),
            "critic": F.smooth_l1_loss(value(td["obs"]), target),
        }
        total = sum(v for v in losses.values())
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return locals()


@IDIOMS("a2c-ppo-acktr", "a recurrent policy: states masked at the ends of episodes, kept for the next rollout")
def recurrent_a2c():
    gru, actor, critic = nn.GRUCell(3, 4), nn.Linear(4, 2), nn.Linear(4, 1)
    model = nn.ModuleList([gru, actor, critic])
    for name, param in gru.named_parameters():
        if "bias" in name:
            nn.init.constant_(param, 0)
        else:
            nn.init.orthogonal_(param)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, eps=1e-5, alpha=0.99)
    obs, hidden, masks = torch.zeros(5, 2, 3), torch.zeros(5, 2, 4), torch.ones(5, 2, 1)
    actions, rewards, returns = torch.zeros(4, 2).long(), torch.zeros(4, 2, 1), torch.zeros(5, 2, 1)
    for _ in range(3):
        for step in range(4):
            with torch.no_grad():
                h = gru(obs[step], hidden[step] * masks[step])
                action = torch.distributions.Categorical(logits=actor(h)).sample()
            actions[step].copy_(action)
            rewards[step].copy_(action[:, None].float())
            obs[step + 1].copy_(torch.randn(2, 3))
            hidden[step + 1].copy_(h)
            masks[step + 1].copy_((torch.rand(2, 1) > 0.3).float())
        with torch.no_grad():
            returns[-1] = critic(gru(obs[-1], hidden[-1] * masks[-1]))
        for step in reversed(range(4)):
            returns[step] = returns[step + 1] * 0.99 * masks[step + 1] + rewards[step]
        # differences: model
        outputs, h = [], hidden[0]
        for step in range(4):
            h = gru(obs[step], h * masks[step])
            outputs.append(h)
        outputs = torch.stack(outputs)
        dist = torch.distributions.Categorical(logits=actor(outputs))
        advantages = returns[:-1] - critic(outputs)
        action_loss = -(advantages.detach().squeeze(-1) * dist.log_prob(actions)).mean()
        optimizer.zero_grad()
        (advantages.pow(2).mean() * 0.5 + action_loss - dist.entropy().mean() * 0.01).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        for storage in obs, hidden, masks:
            storage[0].copy_(storage[-1])
    return locals()
