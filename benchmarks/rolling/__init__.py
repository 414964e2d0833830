"""Parts of `shortlist bench rollout`."""
