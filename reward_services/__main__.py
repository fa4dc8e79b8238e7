"""`python -m reward_services`, the same as `reward-services`."""

from reward_services.cli import main

if __name__ == "__main__":
    main()
