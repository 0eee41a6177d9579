"""What ``segdre demo`` needs: the embedded corpus."""
