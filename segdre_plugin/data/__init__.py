"""DocRED in, files out: documents, splits, atomic files, streams, conversion; knows no model."""
