"""ELBO_TDS: a two-tower recommender trained day by day to last beyond the day."""
