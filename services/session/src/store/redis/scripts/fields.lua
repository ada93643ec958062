-- The fields of a session; prepended to each script that reads one.
local FIELDS = {'user', 'device', 'address', 'created', 'seen', 'idle', 'end', 'counter', 'confirmed', 'repeats',
  'replacements', 'repeated_rotations', 'last_device', 'last_address', 'authentication'}
