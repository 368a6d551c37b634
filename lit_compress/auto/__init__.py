"""The automatic choice among the ways of running a model: every route tried, judged, measured; the best one kept."""
