"""The one error a user of the kit should ever see."""


class KitError(Exception):
    """Something a person can act on, said in one clear sentence.

    The command line prints the sentence without a traceback and exits with status 2; a notebook shows it as the
    last line of the error. Everything else that reaches a user is a defect of the kit.
    """
