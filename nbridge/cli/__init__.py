"""The command line. Modules here import torch only when a command needs it."""
