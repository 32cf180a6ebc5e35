import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Claims } from '../../../lib/firewall/claims.ts';
import { Address } from '../../../lib/ip.ts';
import { ProgramTimeoutError } from '../../../lib/kernel/programs.ts';
import { failing } from '../../support/failing-file-calls.ts';

const attachment = { network: 'net', containerId: 'one', ifname: 'eth0' };

function claimsIn(t: ExecutionContext): { claims: Claims; directory: string } {
  const directory = mkdtempSync(join(tmpdir(), 'claims-'));
  t.teardown(() => {
    rmSync(directory, { recursive: true });
    rmSync(`${directory}.lock`, { force: true });
  });
  return { claims: new Claims(() => {}, directory), directory };
}

test.serial('claims that cannot be listed are not taken for none', async (t) => {
  const { claims } = claimsIn(t);
  for (const code of ['EMFILE', 'ENOMEM', 'EPERM'])
    await failing('readdirSync', code, async () => {
      t.throws(() => claims.of(attachment), { message: /Cannot list/ });
      await t.throwsAsync(claims.take(attachment, [], { backends: [] }), { message: /Cannot list/ });
    });
  // The lock was released, or this would wait for it.
  await claims.take(attachment, [], { backends: [] });
  t.deepEqual(claims.of(attachment), []);
});

test.serial('what is no directory in place of that of the claims holds none, and is told of', (t) => {
  const { directory } = claimsIn(t);
  const told: string[] = [];
  writeFileSync(join(directory, 'file'), '');
  symlinkSync('loop', join(directory, 'loop'));
  for (const name of ['file', 'loop', 'loop/claims']) {
    const claims = new Claims((message) => told.push(message), join(directory, name));
    t.deepEqual(claims.of(attachment), []);
    t.regex(told.pop() ?? '', new RegExp(`^Cannot list ".*/${name}"\\. `));
  }
});

test.serial(
  'a claim that cannot be removed fails the release, a directory in its place does not',
  async (t) => {
    const { claims, directory } = claimsIn(t);
    await claims.take(attachment, [Address.parse('10.1.0.2')], { backends: [] });
    const release = () =>
      claims.release(claims.of(attachment), { known: [], inUse: true, isHeld: () => false }, async () => {});
    await failing('unlinkSync', 'EPERM', async () => {
      await t.throwsAsync(release(), { message: /Cannot remove ".*leaving"/ });
    });
    const [left] = readdirSync(directory);
    rmSync(join(directory, left!));
    mkdirSync(join(directory, left!, 'inside'), { recursive: true });
    await release();
    t.deepEqual(readdirSync(directory), []);
  },
);

test('nobody waits for a release that has failed, and the claim stays for the next one', async (t) => {
  const { claims } = claimsIn(t);
  const address = Address.parse('10.41.0.9');
  const details = { backends: ['iptables'] } as const;
  await claims.take(attachment, [address], details);
  const release = (remove: () => Promise<void>) =>
    claims.release(claims.of(attachment), { known: [], inUse: true, isHeld: () => false }, remove);
  await t.throwsAsync(
    release(async () => {
      throw new Error('the table is locked');
    }),
    { message: 'the table is locked' },
  );
  // It would wait for nearly two minutes.
  const { isNew } = await claims.take(attachment, [address], details);
  t.false(isNew);
  await release(async () => {});
  t.deepEqual(claims.of(attachment), []);
});

test('a release that fails leaves the mark of another one, which is still going on', async (t) => {
  const { claims } = claimsIn(t);
  await claims.take(attachment, [Address.parse('10.41.0.9')], { backends: ['iptables'] });
  const options = { known: [], isHeld: () => false };
  const begun = Promise.withResolvers<void>();
  const told = Promise.withResolvers<void>();
  const del = claims.release(claims.of(attachment), { ...options, inUse: true }, async () => {
    begun.resolve();
    await told.promise;
  });
  await begun.promise;
  const gc = claims.release(claims.stale('net', []), { ...options, inUse: false }, async () => {
    throw new Error('refused');
  });
  await t.throwsAsync(gc, { message: 'refused' });
  t.deepEqual(
    claims.of(attachment).map(({ isLeaving }) => isLeaving),
    [true],
  );
  told.resolve();
  await del;
  t.deepEqual(claims.of(attachment), []);
});

test('a claim is kept by an ADD that does not know what the firewall has done', async (t) => {
  const address = Address.parse('10.41.0.9');
  for (const [error, kept] of [
    [new Error('refused'), 0],
    [new ProgramTimeoutError(11, 'not ended'), 1],
  ] as const) {
    const { claims } = claimsIn(t);
    const taken = await claims.take(attachment, [address], { backends: ['iptables'] });
    await t.throwsAsync(
      taken.settleAfter(async () => {
        throw error;
      }),
    );
    taken.giveBack();
    t.is(claims.of(attachment).length, kept);
  }
});
