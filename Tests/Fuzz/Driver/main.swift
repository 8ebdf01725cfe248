// The program of `make fuzz`: libFuzzer over the target that FUZZ_TARGET names. An environment variable, because
// libFuzzer starts itself anew with its own arguments alone when it merges or minimizes.
#if FUZZING
import CFuzzer
import FuzzTargets
import Glibc

guard let target = getenv("FUZZ_TARGET").flatMap({ FuzzTarget(rawValue: String(cString: $0)) }) else {
    print("FUZZ_TARGET must be one of " + FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))
    exit(2)
}
let chosen = target
var count = CommandLine.argc
var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
let status = LLVMFuzzerRunDriver(&count, &arguments) { bytes, count in
    do throws(FuzzFinding) {
        try chosen.run(UnsafeRawBufferPointer(start: bytes, count: count))
    } catch {
        fatalError("\(error)")
    }
    return 0
}
exit(status)
#else
print("This is built by `make fuzz`, which tells the compiler to watch its branches.")
#endif
