-- What a session is made of; it stands before each script that reads one.
local FIELDS = {'user', 'device', 'address', 'created', 'seen', 'idle', 'end', 'counter'}
