"""The method on models and splits: settings, pairs, branches, margins, scores (sections 3.2 to 3.5)."""
