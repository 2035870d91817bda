"""From tables to judgement: which setting, how sure, what is better. No torch."""
