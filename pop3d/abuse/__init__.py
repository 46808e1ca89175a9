"""Who may connect and log in, how often, how many at a time; and who is known already.

May touch config and system. Knows neither session nor authenticator.
"""
