"""What all commands share: parsing, errors, output, and the process."""
