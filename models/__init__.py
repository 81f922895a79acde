"""VGG-16 transfer learning and small tabular models: training, scoring, the promotion gate."""
