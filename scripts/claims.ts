/** The claims that a demonstration makes on standard output, and how many of them held. */

const started = performance.now();

export class Claims {
  private held = 0;
  private failed = 0;

  /** The title of a group of claims. */
  heading(text: string): void {
    console.log(`\n${text}`);
  }

  /** A remark, which is not checked. */
  say(text: string): void {
    console.log(`  ${text}`);
  }

  /** Lines that a program printed. */
  show(command: string, output: string): void {
    console.log(`  ${command}`);
    for (const line of output.trimEnd().split('\n')) console.log(`      ${line.trimEnd()}`);
  }

  /** A claim that is true because the step before it succeeded. */
  hold(claim: string): void {
    this.held++;
    console.log(`  ✔ ${claim}`);
  }

  /** A claim that did not hold. */
  fail(claim: string): void {
    this.failed++;
    console.log(`  ✘ ${claim}`);
  }

  /** Checks a claim. An error means that it does not hold, and is printed with it. */
  async check(claim: string, truth: Promise<boolean>): Promise<void> {
    try {
      if (await truth) this.hold(claim);
      else this.fail(claim);
    } catch (error) {
      this.fail(`${claim}\n      ${(error as Error).message.trimEnd().replaceAll('\n', '\n      ')}`);
    }
  }

  /**
   * Sums up, and sets the exit code of the process: 0 only if every claim held.
   * @param epilogue what else to say if they did.
   */
  conclude(epilogue: string): void {
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(
      this.failed === 0
        ? `\nAll ${this.held} checks held in ${seconds} s. ${epilogue}`
        : `\n${this.failed} of ${this.held + this.failed} checks failed.`,
    );
    process.exitCode = this.failed === 0 ? 0 : 1;
  }
}
