"""Stage 1 at work: which sessions are asked about, by whom, and what is written when."""
