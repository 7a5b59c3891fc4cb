"""What clients are told while their server does not run, and what is started before they ask."""
