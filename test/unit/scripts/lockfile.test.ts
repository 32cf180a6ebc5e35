/** What `npm ci` installs is pinned: every package by its version and the SHA-512 of its archive. */

import test from 'ava';
import packageJson from '../../../package.json' with { type: 'json' };
import packageLock from '../../../package-lock.json' with { type: 'json' };

interface LockEntry {
  name?: string;
  version?: string;
  resolved?: string;
  integrity?: string;
  link?: boolean;
}

/** One line for each entry that is not pinned, or comes from elsewhere than npm's registry by its own name. */
function faultsOf(packages: Readonly<Record<string, LockEntry>>): string[] {
  return Object.entries(packages).flatMap(([path, { name, version, resolved, integrity, link }]) => {
    if (path === '') return [];
    const own = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    // Without "resolved", npm asks the registry that it is configured with for the package of this name.
    const archive = `https://registry.npmjs.org/${own}/-/${own.split('/').at(-1)}-${version}.tgz`;
    return [
      !/^\d+\.\d+\.\d+/.test(version ?? '') && `${path} has no version`,
      !/^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? '') && `${path} has no SHA-512`,
      resolved !== undefined && resolved !== archive && `${path} comes from ${resolved}`,
      name !== undefined && name !== own && `${path} is an alias of ${name}`,
      link && `${path} is a link`,
    ].filter((fault) => typeof fault === 'string');
  });
}

test('every package is pinned, and comes from the registry by its name', (t) => {
  t.true(Object.keys(packageLock.packages).length > 200);
  t.deepEqual(faultsOf(packageLock.packages as Record<string, LockEntry>), []);
});

test('the project asks for exact versions, which are those that are locked', (t) => {
  const packages = packageLock.packages as Record<string, LockEntry>;
  t.false('dependencies' in packageJson);
  for (const [name, version] of Object.entries(packageJson.devDependencies))
    t.is(packages[`node_modules/${name}`]?.version, version, name);
});

test('an entry that is not pinned, or comes from elsewhere, is found', (t) => {
  const integrity = `sha512-${'A'.repeat(86)}==`;
  const faults = (entry: LockEntry, path = 'node_modules/@a/b') => faultsOf({ [path]: entry });
  t.deepEqual(faults({ version: '1.0.0', integrity }), []);
  t.deepEqual(
    faults({ version: '1.0.0', integrity, resolved: 'https://registry.npmjs.org/@a/b/-/b-1.0.0.tgz' }),
    [],
  );
  t.deepEqual(faults({ version: '1.0.0' }), ['node_modules/@a/b has no SHA-512']);
  t.deepEqual(faults({ version: '1.0.0', integrity: 'sha1-AAAA' }), ['node_modules/@a/b has no SHA-512']);
  t.deepEqual(faults({ integrity }), ['node_modules/@a/b has no version']);
  for (const resolved of [
    'git+ssh://git@github.com/a/b.git#1234',
    'https://registry.npmjs.org/@a/c/-/c-1.0.0.tgz',
    'https://example.org/@a/b/-/b-1.0.0.tgz',
  ])
    t.deepEqual(faults({ version: '1.0.0', integrity, resolved }), [
      `node_modules/@a/b comes from ${resolved}`,
    ]);
  t.is(faults({ version: '1.0.0', integrity, name: 'other' }).length, 1);
  t.is(faults({ version: '1.0.0', integrity, link: true }).length, 1);
});
