"""The proof that no kill loses what was acknowledged: processes that save are killed, again and again."""
