"""The office: gate.ini read into one frozen Config, every error named."""
