"""Files that are whole or not there, hashes of files, and the rules from floats to 8 bits."""
