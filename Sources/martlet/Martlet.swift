import ArgumentParser
import Logging
import NIOCore
import NIOPosix
@main
struct Martlet: ParsableCommand {
}
