"""The patches of the backbones' train scripts: inserted lines of ours, and not a line of theirs."""
