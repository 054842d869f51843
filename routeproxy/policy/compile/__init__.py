"""From the tables of a rules file to the policy that decides."""
