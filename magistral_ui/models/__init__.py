"""What can be run: facts about models, pure, without loading any of them."""
