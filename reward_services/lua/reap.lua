-- Take back what silent workers hold, when no living worker asks for work. Returns the burials.
return reap()
