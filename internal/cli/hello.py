# The action of Millrace's demonstration. Edit and save it: the next event runs
# what you wrote.
import time


def main(args):
    print("hello at", time.strftime("%H:%M:%S"))
    return {"greeting": "Hello, " + args.get("name", "world")}
