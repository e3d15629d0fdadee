"""Reinforcement learning on plain tensors; a policy is seen only through a Protocol."""
