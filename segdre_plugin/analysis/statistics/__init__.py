"""What documents look like to SegDRE: the statistics of the paper's Table 1, Figure 1, Table 6 and Figure 6."""
