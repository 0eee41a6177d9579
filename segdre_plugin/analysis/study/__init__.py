"""``segdre study``: the paper's ablations and analyses (section 5.2, 6 and appendix A.2) on one's own data."""
