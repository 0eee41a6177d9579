"""Statistics of documents as SegDRE sees them: those of the paper's Table 1, Figure 1, Table 6 and Figure 6."""
