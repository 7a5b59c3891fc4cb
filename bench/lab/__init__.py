"""What every case needs: programs on cores, their use of the machine, figures, tables, targets."""
