"""The loop that recovery and training share: steps on a schedule, the best epoch, checkpoints."""
