/** Options that take a number, all checked in the same way. */

import { CommandError, ExitCode } from './errors.ts';

/**
 * Settings that make a yargs option take a whole number.
 * @param name of the option, for messages. @param limits least and greatest value.
 */
export function wholeNumber(name: string, [least, greatest]: readonly [number, number]) {
  const coerce = (value: number | number[] | undefined) => {
    if (value === undefined) return undefined as unknown as number;
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= greatest)
      return value;
    const given = Array.isArray(value)
      ? 'is given twice'
      : Number.isNaN(value)
        ? 'is no number'
        : `is ${value}`;
    throw new CommandError(
      `--${name} ${given}, but it must be one whole number from ${least} to ${greatest}`,
      { exitCode: ExitCode.Usage },
    );
  };
  return { type: 'number', requiresArg: true, coerce } as const;
}
