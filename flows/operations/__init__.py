"""What operators see and use: final states, artifacts, events, automations, `shortlist up`."""
